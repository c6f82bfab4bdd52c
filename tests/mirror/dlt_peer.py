"""What dlt's rest_api source makes of the same job: the three list endpoints into the same Postgres.

usage: dlt_peer.py BASE_URL DATABASE_URL, with the token in HUBSPOT_ACCESS_TOKEN
prints one line of JSON: version, seconds, cpu_seconds, peak_megabytes, records
"""

import json
import os
import resource
import sys
import tempfile
import time

os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
os.environ.setdefault("RUNTIME__LOG_LEVEL", "ERROR")

import dlt  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402

# The properties that the sandbox's portal has, so that both copy the same; HubSpot answers three otherwise.
PROPERTIES = {
    "contacts": "email,firstname,lastname,phone,company,lifecyclestage,city,jobtitle,website,createdate,lastmodifieddate",
    "companies": "name,domain,industry,phone,city,createdate,hs_lastmodifieddate",
    "deals": "dealname,amount,dealstage,pipeline,closedate,createdate,hs_lastmodifieddate",
}
OTHERS = {"contacts": "companies,deals", "companies": "contacts,deals", "deals": "contacts,companies"}


def resource_of(kind):
    return {
        "name": kind,
        "primary_key": "id",
        # The cheapest of the dispositions that leave a copy and no heap.
        "write_disposition": "replace",
        "max_table_nesting": 0,
        "endpoint": {
            "path": f"crm/v3/objects/{kind}",
            "data_selector": "results",
            "params": {"limit": 100, "properties": PROPERTIES[kind], "associations": OTHERS[kind]},
            "paginator": {"type": "cursor", "cursor_path": "paging.next.after", "cursor_param": "after"},
        },
    }


def main():
    base_url, database_url = sys.argv[1:3]
    token = os.environ["HUBSPOT_ACCESS_TOKEN"]
    begun, used = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as place:
        pipeline = dlt.pipeline(
            pipeline_name="peer",
            pipelines_dir=place,
            destination=dlt.destinations.postgres(database_url),
            dataset_name="dlt_peer",
        )
        source = rest_api_source(
            {
                "client": {"base_url": base_url, "auth": {"type": "bearer", "token": token}},
                "resources": [resource_of(kind) for kind in PROPERTIES],
            }
        )
        pipeline.run(source).raise_on_failed_jobs()
        counted = pipeline.last_trace.last_normalize_info.row_counts
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {
                "version": dlt.__version__,
                "seconds": round(time.monotonic() - begun, 2),
                "cpu_seconds": round(time.process_time() - used + others.ru_utime + others.ru_stime, 2),
                "peak_megabytes": round(max(own.ru_maxrss, others.ru_maxrss) / 1024, 1),
                "records": sum(counted.get(kind, 0) for kind in PROPERTIES),
            }
        )
    )


main()
