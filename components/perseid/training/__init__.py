"""Training: chats whose last turn is learned, or pairs of answers to prefer, go in; a whole model directory comes out.

`finetune.fine_tune` and `preference.prefer` are the ways in. The room holds no import of torch at package level, so
that whoever only reads a model's manifest (`manifest.ModelManifest`) need not have it.
"""
