"""An S3 server with one bucket, `cache`, and one user who may use it: moto's, with signatures and rights checked.

Prints {"port", "id", "secret"}, then answers one line on standard input with one line, and ends with its input:

    objects          the keys, each with size, age in seconds and metadata
    age SECONDS      makes all objects so old
    delete KEY       removes an object
    damage KEY       changes the bytes of an object
"""

import datetime
import json
import os
import sys

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "inf"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
out, sys.stdout = sys.stdout, sys.stderr

import boto3
from moto import settings
from moto.core.responses import ActionAuthenticatorMixin
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()


def client(service):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="anybody",
        aws_secret_access_key="anything",
    )


client("s3").create_bucket(Bucket="cache")
iam = client("iam")
iam.create_user(UserName="user")
statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
policy = {"Version": "2012-10-17", "Statement": [statement]}
iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="user")["AccessKey"]
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
ActionAuthenticatorMixin.request_count = 0


def say(answer):
    print(json.dumps(answer), file=out, flush=True)


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


say({"port": port, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]})
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    keys = s3_backends["123456789012"]["aws"].buckets["cache"].keys
    if command == "objects":
        say(
            {
                name: {
                    "size": object.size,
                    "age": (now() - object.last_modified).total_seconds(),
                    "metadata": dict(object.metadata),
                    "parts": bool(object.multipart),
                    "text": object.value.decode("latin-1") if object.size < 100_000 else "",
                }
                for name, object in keys.items()
            }
        )
        continue
    if command == "age":
        for object in keys.values():
            object.last_modified = now() - datetime.timedelta(seconds=int(argument))
    elif command == "delete":
        del keys[argument]
    elif command == "damage":
        object = keys[argument]
        object.value = bytes(byte ^ 255 for byte in object.value)
    say("done")
