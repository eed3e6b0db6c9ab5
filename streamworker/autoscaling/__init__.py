"""What autoscaling by lag would do: the rules of Kubernetes and of KEDA, over a lag that was recorded or is made up.

Nothing here talks to a cluster. All of it is values in, values out, in a time of its own. Any thread.
"""
