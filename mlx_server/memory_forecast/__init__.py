"""Forecast what a model and its requests take in memory, from the model's files, before any of it is loaded.

The engine uses the forecast to decide whether a model or request fits; the gateway, to show which models do.

| module            | job                                                                  |
|-------------------|----------------------------------------------------------------------|
| `weights`         | the weights, from the headers of their files. Pure                   |
| `kv`              | the KV cache, from config.json. Pure                                 |
| `kv_quantization` | the setting that stores keys and values in fewer bits. Pure          |
| `forecast`        | the sum of these, and the peak of a prefill step. Pure               |
| `model_files`     | the forecast for an installed model: reads its files                 |
"""
