"""The way that a described request would go, found by the code that routes real ones (`/route_explain`)."""
