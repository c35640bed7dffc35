"""The steps of a pipeline: settings of the API, states gathered from chunks, and fitted steps that serving replays."""
