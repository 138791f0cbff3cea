import os

import stripe

if "STRIPE_CA" in os.environ:
    stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
print(stripe.StripeClient(os.environ["STRIPE_SECRET_KEY"]).v1.balance.retrieve().object)
