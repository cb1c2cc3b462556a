"""Requests on their way through the engine, and the loop that advances them, all on the MLX thread.

request  request_table   one request and its status; all of them by id, the queues being views   pure
memory_queue             which request waiting for memory is tried next                          pure
loads  model_load        which model is loaded next; one load in progress
loaded_models  unloader  the models in memory; how they leave it
runners                  the requests of one loaded model
early_checks             checks requests that wait, on a thread of its own
starter                  passes requests to their model's runner
backend                  what the scheduler needs of MLX and of the machine
scheduler                the loop, and the only surface of this package
"""
