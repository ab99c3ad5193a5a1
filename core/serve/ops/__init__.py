"""What watches a service: rules and a dashboard for Prometheus and Grafana, and `make monitor`."""
