"""Measure Vestal and, where there are any, comparable programs: `make bench`, `make chaos`.

| folder                                          | job                                                |
|-------------------------------------------------|----------------------------------------------------|
| `serving`                                       | text and embeddings of our server and of its peers |
| `loading`                                       | loads of a large model                             |
| `gateway`, `agent`, `knowledge`, `orchestrator` | the time and memory that one part of Vestal takes  |
| `supervision`, `faults`, `chaos`                | what happens while processes die                   |
| `scale`                                         | simulated fleets of machines                       |
| `client`, `processes`, `peers`                  | the clients, our processes, and the peers          |
| `runs`, `report`, `results`                     | stored runs, their pages, their figures            |
"""
