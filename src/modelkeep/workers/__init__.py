"""The main functions of the processes: supervisor, gateway, replica, recorder."""
