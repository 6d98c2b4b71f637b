"""The Sandbox controller: plans forks of workloads and keeps them, their Services and their status right."""
