"""Perseid's own questions of a domain, units of measurement, in the splits train, dev and test.

`train.jsonl`, `dev.jsonl` and `test.jsonl` hold one `perseid.data.records.Question` on each line, each with a check.
`mentor.jsonl` holds a mentor's answer, ours, to every question of train. `scripts/write_question_pack.py` wrote them;
`perseid.data.question_pack_check` computes every answer anew and checks the splits.
"""
