"""The side we call: clusters, endpoints, balancers, pools, circuit breakers."""
