"""Perseid's own problems: short Python functions, graded, in the splits train, dev and test.

`train.jsonl`, `dev.jsonl` and `test.jsonl` hold one `perseid.data.records.Problem` on each line. `wrong.jsonl` holds
deliberately wrong solutions, so that the tests of a problem are known to tell wrong from right. The rules that the pack
keeps (sizes, families, no near-duplicates across splits or of HumanEval) are checked by `perseid.data.pack_check`.
"""
