"""`GET /live`: all changing data of the status page, as one stream of server-sent events.

| module             | what it is                                                              |
|--------------------|-------------------------------------------------------------------------|
| `mailbox`          | the frames that one follower has not received yet                       |
| `hub`              | the followers, and the sources that run while there is a follower       |
| `status_source`    | `status` events: the body of GET /status                                |
| `requests_source`  | `requests` events: the gateway's list of requests                       |
| `incident_source`  | `incident` events: each incident that opens, changes or closes          |
| `sample_source`    | `sample` events: figures about memory, requests and tokens              |
| `routes`           | the route                                                               |
"""
