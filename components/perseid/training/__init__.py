"""Supervised fine-tuning: chats whose last turn is learned go in, a whole model directory comes out.

`finetune.fine_tune` is the one way in. The room holds no import of torch at package level, so that whoever only reads
a model's manifest (`manifest.ModelManifest`) need not have it.
"""
