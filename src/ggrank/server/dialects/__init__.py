"""What is answered on which path, in the words of the services whose clients ask.

`rerank` and `embed` compute, `search` asks the index, `models` lists the models, `tokens` makes tokens of
texts and texts of tokens. `fields` holds what requests share.
"""
