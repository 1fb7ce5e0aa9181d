"""A whole private registry as files in one folder: what it runs on, who may use it, and how it is kept up.

wanted      what is asked for (`Deployment`), and one file of it (`WantedFile`): what all the others are made of
config_yml  the registry's configuration, for 2.8 and 3.x
authority   the deployment's own certificate authority and certificates; the check of given ones
users       lines of its htpasswd file
nightly     the script that runs backup, gc and verify, whatever starts it
containers  what the forms that run containers share
compose     the compose file
kubernetes  the manifests, and the kustomization that makes their Secrets
policies    least privilege on a bucket, as IAM policies
"""
