"""A whole private registry as files in one folder: what it runs on, who may use it, and how it is kept up.

wanted      what is asked for (`Deployment`), and one file of it (`WantedFile`): what all the others are made of
"""
