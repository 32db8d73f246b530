"""Drawing and editing with learned words."""
