"""The engine as the gateway's child: started, linked, watched, recycled, replaced."""
