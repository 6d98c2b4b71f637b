"""What a cluster needs to run Sandlane: kinds, rights, webhook configurations, the manager. The same for manifests, chart and laptop."""
