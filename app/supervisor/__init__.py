"""Broker, worker and API on one machine: started together, stopped together, none left behind.

Standard library only. Kept empty, because `launch` starts in front of every child.
"""
