"""A whole private registry as files in one folder: what it runs on, who may use it, and how it is kept up.

wanted             what is asked for (`Deployment`), and one file of it (`WantedFile`): what all the others are made of
config_yml         the registry's configuration, for 2.8 and 3.x
authority          the deployment's own certificate authority and certificates; the check of given ones
certificates       which of these DIR is to have, from those that are there or were given
users              lines of its htpasswd file
environment_files  what is secret, as NAME=value; `credentials` finds the S3 keys
forms              all files that follow from what is asked: of systemd, compose, kubernetes, and of all
record             what was asked and written before: deployment.json
planning           what has to change in DIR
applying           reading DIR, and making it so
nightly            regstore.toml, with the job that runs backup, gc and verify, whatever starts it
containers         what the forms that run containers share
compose            the compose file
kubernetes         the manifests, and the kustomization that makes their Secrets
readme_txt         how to start it, how clients trust it, how it is kept: DIR/README.txt
policies           least privilege on a bucket, as IAM policies
"""
