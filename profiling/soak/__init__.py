"""`soak`: minutes of mixed traffic, after which nothing may have grown and no answer be lost."""
