"""Exit at once, with LAST WORDS on standard error: exits.py CODE [LAST WORDS]"""

import sys

if len(sys.argv) > 2:
    print("starting", flush=True)
    print(sys.argv[2], file=sys.stderr, flush=True)
sys.exit(int(sys.argv[1]))
