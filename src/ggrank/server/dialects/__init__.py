"""What is answered on which path, in the words of the services whose clients ask.

`rerank`, `embed` and `tokens` compute, `search` asks the index, `models` lists the models, and `fields` holds
what requests share.
"""
