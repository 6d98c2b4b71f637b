"""Admission: webhooks and policies that may change or refuse a write before it is stored."""
