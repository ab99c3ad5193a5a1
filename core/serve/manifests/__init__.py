"""Kubernetes manifests of a service: plain objects or KServe's, as data; no cluster is asked."""
