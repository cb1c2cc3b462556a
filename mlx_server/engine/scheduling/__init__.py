"""The requests in the engine, and the loop that advances them, all on the MLX thread unless noted.

request  request_table   one request and its status; all requests by id, with the queues as views   pure
memory_queue             which request that waits for memory is tried next                          pure
loads  model_load        which model is loaded next; the load in progress
loaded_models  unloader  the models in memory; how they are unloaded
runners                  the requests of one loaded model
early_checks             checks requests that wait, on a thread of its own
starter                  passes requests to the runner of their model
backend                  what the scheduler needs of MLX and of the machine
scheduler                the loop, and the only interface of this package
"""
