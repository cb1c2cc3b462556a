"""Forecast what a model and its requests take in memory, from the model's files, before any of it is loaded.

The engine decides by it whether a need fits; the gateway shows by it which of the installed models fit.

| module            | job                                                                  |
|-------------------|----------------------------------------------------------------------|
| `weights`         | the weights, from the headers of their files. Pure                   |
| `kv`              | the KV cache, from config.json. Pure                                 |
| `kv_quantization` | the setting that stores keys and values in fewer bits. Pure          |
| `forecast`        | all of it, and the peak of a prefill step. Pure                      |
| `model_files`     | the same for an installed model: reads its files                     |
"""
