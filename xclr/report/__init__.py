"""What people look at: tables, pages, plots."""
