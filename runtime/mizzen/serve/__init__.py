"""The model server: Open Inference Protocol v2 and /predict in, batches through one model, answers and metrics out."""
