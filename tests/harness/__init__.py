"""What process-level tests start and talk to: programs, a Kafka broker, Redis. Standard library only."""
