"""Forecast how much memory a model and its requests take, from the model's files, before any of it is loaded.

The engine uses the forecast to decide whether a model or request fits; the gateway, to show which models do.

| module            | job                                                                    |
|-------------------|------------------------------------------------------------------------|
| `weights`         | the weights, from the headers of their files. Pure                     |
| `text_config`     | the sizes in config.json, and those that it leaves out. Pure           |
| `kv`              | the KV cache, from config.json. Pure                                   |
| `kv_quantization` | the setting that stores keys and values in fewer bits. Pure            |
| `tower`           | what a vision tower takes for an image, a layer at a time. Pure        |
| `forecast`        | the sum of these, and the peak of a prefill step. Pure                 |
| `fit`             | the comparison with a limit of memory, and the context that fits. Pure |

`mlx_server.model_store.forecasts` makes the forecast of a model from its files.
"""
