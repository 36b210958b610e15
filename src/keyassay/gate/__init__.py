"""The gate: HAProxy in front of an MQTT broker, kept in step with the registry by an agent beside it."""
