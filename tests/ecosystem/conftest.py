"""The tests here run in environments of their own, by `run`; not with the others."""

collect_ignore = ["own"]
