"""Where a Dataset's rows come from: files of any usual format, or the rows of a SQL query, put together or joined."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mizzen_api.meta import ApiModel, FreeForm, rules

ColumnType = Literal["string", "integer", "float", "boolean", "date", "datetime", "binary"]
Schema = Annotated[dict[str, ColumnType], Field(max_length=4096)]
ColumnName = Annotated[str, Field(min_length=1, max_length=256)]


class SecretKey(ApiModel):
    """One key of a Secret in the Dataset's namespace."""

    name: str = Field(description="Name of the Secret.", min_length=1, max_length=253)
    key: str = Field("url", description="Key that holds the database's URL.", min_length=1, max_length=253)


# Keys of a Secret that a source's uri may be read with; a Secret has those that its server wants.
ACCESS_KEYS = (
    "accessKeyId", "secretAccessKey", "sessionToken", "endpoint", "region", "username", "password", "token",
)  # fmt: skip


class SourceSecret(ApiModel):
    """A Secret in the Dataset's namespace, which the pod gets as files."""

    name: str = Field(description="Name of the Secret.", min_length=1, max_length=253)


class Sql(ApiModel):
    """The rows of a query."""

    query: str = Field(
        description="A SELECT. Write :name where a parameter goes. The fingerprint is over the rows in the order in "
        "which they come, so end the query with ORDER BY.",
        min_length=1,
        max_length=65536,
    )
    parameters: FreeForm = Field(
        default_factory=dict,
        description="Values for the query's :name places: strings, numbers, booleans or null. They are bound by the "
        "database and never become part of the query's text.",
    )
    secret_ref: SecretKey = Field(
        description="Secret with the database's URL, credentials included: postgresql://USER:PASSWORD@HOST/DATABASE, "
        "mysql://USER:PASSWORD@HOST/DATABASE (MariaDB, too) or sqlite:///PATH."
    )


class Csv(ApiModel):
    """How a delimited text file is written, where that is not to be guessed."""

    delimiter: str | None = Field(
        None, description="Character between fields; by default the one of , ; tab | that the header has.", max_length=1
    )
    quote: str = Field('"', description="Character around fields; empty where quotes are plain text.", max_length=1)
    header: bool = Field(True, description="The first line names the columns; else they are column_1, column_2, …")
    null_values: list[str] = Field(
        default_factory=list,
        description="What stands for a missing value in every column but the text columns, beside the empty field. "
        "NA, N/A, NaN, null, NULL, None and #N/A always do in columns of numbers, dates and booleans.",
        max_length=64,
    )
    encoding: str | None = Field(
        None,
        description="Name of the encoding. By default UTF-8, and lines that are not UTF-8 are read as Latin-1.",
        max_length=64,
    )


class Join(ApiModel):
    """Put the columns of this source beside those of the rows so far."""

    model_config = rules(
        ("!(has(self.keys) && has(self.on) && size(self.on) > 0)", "keys and on are the same: set one of them"),
    )

    on: list[ColumnName] = Field(
        default_factory=list,
        description='Columns whose values must be equal; by default all that both sides have. Write "on" with its '
        "quotes: in YAML a bare on means true; or write keys.",
        max_length=64,
    )
    keys: list[ColumnName] | None = Field(
        None, description="The same as on, by a name that YAML does not read as true.", min_length=1, max_length=64
    )
    how: Literal["inner", "left", "full", "semi", "anti"] = Field(
        "left",
        description="left keeps all rows so far, inner those with a partner, full also this source's rows without "
        "one. semi and anti keep the rows with and without a partner and add no columns.",
    )
    suffix: str | None = Field(
        None,
        description="Added to names of this source's columns that the rows so far have, too; such names are refused "
        "where it is not set.",
        min_length=1,
        max_length=64,
    )

    @property
    def columns(self) -> list[str]:
        """Columns whose values must be equal, by whichever name they were given; empty for all that both sides have."""
        return self.keys or self.on


Format = Literal["auto", "csv", "json", "jsonl", "parquet", "arrow", "images", "text", "idx"]


class Source(ApiModel):
    """Where rows come from: files or a query."""

    model_config = rules(
        ("has(self.uri) != has(self.sql)", "a source has either uri or sql"),
        ("!has(self.labels) || has(self.uri)", "labels belong to a uri of an IDX file"),
        ("!has(self.secretRef) || has(self.uri)", "secretRef belongs to a uri; a query has its own, sql.secretRef"),
    )

    uri: str | None = Field(
        None,
        description="File, folder or glob: a path, file://, s3://, gs://, http(s):// or another fsspec URI, or "
        "package://PACKAGE/PATH for a file that an installed Python package carries. Files of a glob are read in the "
        "order of their names. gzip, bzip2, xz and Zstandard are unpacked.",
        min_length=1,
        max_length=2048,
    )
    sql: Sql | None = Field(None, description="A query to a database.")
    secret_ref: SourceSecret | None = Field(
        None,
        description="Secret to read the uri with. s3://: accessKeyId, secretAccessKey, sessionToken, endpoint (a URL, "
        "where it is not AWS) and region. http(s)://: username and password, or token for a bearer. Keys that are not "
        "there are left out; the Secret is mounted as files.",
    )
    format: Format = Field(
        "auto",
        description="What the files are; auto goes by name and content. images and text are folders with a folder "
        "for each class; idx is the format of MNIST.",
    )
    csv: Csv | None = Field(None, description="How CSV is written, where that is not to be guessed.")
    labels: str | None = Field(
        None,
        description="IDX file with the labels of an IDX file of images; by default the one beside it.",
        min_length=1,
        max_length=2048,
    )
    join: Join | None = Field(
        None,
        description="Join this source to the rows of the ones before it. Without it, its rows go below theirs. This "
        "source's rows must fit into memory.",
    )
