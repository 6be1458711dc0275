"""The commands of operators by HTTP, and the document that describes them.

`/api/v1/<noun>/<verb>` for each command there is, a plugin's too: GET where it only reads, else POST with its
parameters as a JSON object.
"""
