"""Drives the AWS simulator with botocore, a client that knows nothing of it.

Usage: contract.py SETTINGS.json, where the settings name the endpoints, the CA, the keys and the controls.
Exits non-zero if the simulator breaks the contract.
"""

import json
import sys
import time
import unittest
import urllib.request

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

SETTLE_SECONDS = 20

with open(sys.argv[1], encoding="utf-8") as file:
    SETTINGS = json.load(file)
EAST, WEST = SETTINGS["controls"]["east"], SETTINGS["controls"]["west"]
CLUSTERS = SETTINGS["clusters"]


def client(service, region, url, key=None, secret=None, timeout=10):
    """A client with one attempt and no discovered credentials."""
    return botocore.session.Session().create_client(
        service,
        region_name=region,
        endpoint_url=url,
        verify=SETTINGS["ca"],
        aws_access_key_id=key or SETTINGS["key"],
        aws_secret_access_key=secret or SETTINGS["secret"],
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=timeout, read_timeout=timeout),
    )


def arc(region="us-east-1", sign_for=None, **options):
    return client("route53-recovery-cluster", sign_for or region, SETTINGS["arc"][region], **options)


def rds(region="us-east-1", **options):
    return client("rds", region, SETTINGS["rds"], **options)


def arc_config(region="us-west-2", **options):
    return client("route53-recovery-control-config", region, SETTINGS["rds"], **options)


def control(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SETTINGS["control"] + path, data, method=method)
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Contract(unittest.TestCase):
    def setUp(self):
        control("POST", "/reset")

    def refused(self, code, call, **arguments):
        """The error of a call that must fail with this code."""
        with self.assertRaises(ClientError) as caught:
            call(**arguments)
        self.assertEqual(caught.exception.response["Error"]["Code"], code)
        return caught.exception.response


class RoutingControls(Contract):
    def test_every_endpoint_answers_the_state(self):
        for region in SETTINGS["arc"]:
            answer = arc(region).get_routing_control_state(RoutingControlArn=EAST)
            self.assertEqual(answer["RoutingControlState"], "On", region)
            self.assertEqual(answer["RoutingControlName"], "app-us-east-1")

    def test_list_comes_in_pages(self):
        pages = list(arc().get_paginator("list_routing_controls").paginate(PaginationConfig={"PageSize": 3}))
        listed = [c["RoutingControlArn"] for page in pages for c in page["RoutingControls"]]
        self.assertEqual(len(listed), SETTINGS["control_count"])
        self.assertEqual(len(set(listed)), len(listed))
        self.assertGreater(len(pages), 1)
        self.assertTrue(all(len(page["RoutingControls"]) <= 3 for page in pages))

    def test_list_of_a_panel_has_its_fields(self):
        listed = arc().list_routing_controls(ControlPanelArn=SETTINGS["panel"])["RoutingControls"]
        first = next(c for c in listed if c["RoutingControlArn"] == EAST)
        self.assertEqual(first["ControlPanelArn"], SETTINGS["panel"])
        self.assertEqual(first["Owner"], "123456789012")
        self.refused("ResourceNotFoundException", arc().list_routing_controls, ControlPanelArn="arn:none")

    def test_a_single_update_is_seen_by_all(self):
        arc("us-west-2").update_routing_control_state(RoutingControlArn=EAST, RoutingControlState="Off")
        for region in SETTINGS["arc"]:
            answer = arc(region).get_routing_control_state(RoutingControlArn=EAST)
            self.assertEqual(answer["RoutingControlState"], "Off", region)

    def test_a_batch_swaps_two_controls(self):
        arc().update_routing_control_states(
            UpdateRoutingControlStateEntries=[
                {"RoutingControlArn": WEST, "RoutingControlState": "On"},
                {"RoutingControlArn": EAST, "RoutingControlState": "Off"},
            ]
        )
        states = [arc().get_routing_control_state(RoutingControlArn=c)["RoutingControlState"] for c in (EAST, WEST)]
        self.assertEqual(states, ["Off", "On"])

    def test_a_safety_rule_refuses_a_second_on(self):
        update = arc().update_routing_control_state
        error = self.refused("ConflictException", update, RoutingControlArn=WEST, RoutingControlState="On")
        self.assertEqual(error["resourceType"], "SafetyRule")
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 409)
        update(RoutingControlArn=WEST, RoutingControlState="On", SafetyRulesToOverride=[error["resourceId"]])

    def test_a_failed_batch_changes_nothing(self):
        entries = [
            {"RoutingControlArn": EAST, "RoutingControlState": "Off"},
            {"RoutingControlArn": "arn:none", "RoutingControlState": "On"},
        ]
        update = arc().update_routing_control_states
        error = self.refused("ResourceNotFoundException", update, UpdateRoutingControlStateEntries=entries)
        self.assertEqual(error["resourceId"], "arn:none")
        self.assertEqual(arc().get_routing_control_state(RoutingControlArn=EAST)["RoutingControlState"], "On")

    def test_eleven_entries_are_too_many_and_none_is_too_few(self):
        entries = [{"RoutingControlArn": f"arn:{n}", "RoutingControlState": "On"} for n in range(11)]
        update = arc().update_routing_control_states
        error = self.refused("ServiceLimitExceededException", update, UpdateRoutingControlStateEntries=entries)
        self.assertEqual(error["serviceCode"], "route53-recovery-cluster")
        error = self.refused("ValidationException", update, UpdateRoutingControlStateEntries=[])
        self.assertEqual(error["reason"], "fieldValidationFailed")

    def test_a_fourth_change_within_a_second_is_throttled_on_its_endpoint_only(self):
        update, codes = arc().update_routing_control_state, []
        began = time.monotonic()
        for _ in range(4):
            try:
                update(RoutingControlArn=EAST, RoutingControlState="On")
                codes.append("ok")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])
                self.assertEqual(error.response["retryAfterSeconds"], 1)
        if time.monotonic() - began < 1:
            self.assertEqual(codes, ["ok", "ok", "ok", "ThrottlingException"])
        else:
            self.skipTest("the machine was too slow for four calls within a second")
        arc("eu-west-1").update_routing_control_state(RoutingControlArn=EAST, RoutingControlState="On")

    def test_signatures_are_checked(self):
        ask = {"RoutingControlArn": EAST}
        wrong = arc(secret="wrong")
        self.refused("InvalidSignatureException", wrong.get_routing_control_state, **ask)
        other = arc("us-east-1", sign_for="us-west-2")
        self.refused("InvalidSignatureException", other.get_routing_control_state, **ask)
        unknown = arc(key="AKIDUNKNOWN")
        self.refused("UnrecognizedClientException", unknown.get_routing_control_state, **ask)

    def test_an_endpoint_in_maintenance_says_so_and_the_call_log_tells_who_asked(self):
        control("PATCH", "/faults", {"arc": {"us-east-1": {"mode": "error", "kind": "unavailable"}}})
        call = arc().get_routing_control_state
        error = self.refused("EndpointTemporarilyUnavailableException", call, RoutingControlArn=EAST)
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 503)
        logged = control("GET", "/calls")["calls"]
        self.assertEqual(len(logged), 1)
        self.assertEqual(logged[0]["endpoint"], "arc:us-east-1")
        self.assertEqual(logged[0]["caller"], SETTINGS["key"])
        self.assertEqual(logged[0]["operation"], "GetRoutingControlState")
        self.assertEqual(logged[0]["parameters"], {"RoutingControlArn": EAST})
        self.assertEqual(logged[0]["outcome"], "EndpointTemporarilyUnavailableException")


class SafetyRules(Contract):
    def listed(self, **page):
        pages = arc_config().get_paginator("list_safety_rules")
        pages = list(pages.paginate(ControlPanelArn=SETTINGS["panel"], **page))
        return pages, [rule for page in pages for rule in page["SafetyRules"]]

    def test_an_assertion_rule_has_its_fields(self):
        _, rules = self.listed()
        rule = next(rule["ASSERTION"] for rule in rules if EAST in rule["ASSERTION"]["AssertedControls"])
        self.assertEqual(rule["AssertedControls"], [EAST, WEST])
        self.assertEqual(rule["RuleConfig"], {"Type": "ATLEAST", "Threshold": 2, "Inverted": True})
        self.assertEqual(rule["ControlPanelArn"], SETTINGS["panel"])
        self.assertEqual((rule["Name"], rule["Status"], rule["WaitPeriodMs"]), ("one-app", "DEPLOYED", 0))

    def test_rules_come_in_pages(self):
        pages, rules = self.listed(PaginationConfig={"PageSize": 2})
        self.assertEqual((len(pages), len(rules)), (2, 3))
        self.refused(
            "ValidationException", arc_config().list_safety_rules, ControlPanelArn=SETTINGS["panel"], NextToken="x"
        )

    def test_an_absent_rule_is_not_listed_and_does_not_judge(self):
        control("PATCH", "/faults", {"absent_rules": ["one-app"]})
        self.assertEqual({rule["ASSERTION"]["Name"] for rule in self.listed()[1]}, {"one-ingress", "one-intake"})
        arc().update_routing_control_state(RoutingControlArn=WEST, RoutingControlState="On")

    def test_a_set_wait_period_is_listed_and_refuses_the_next_change(self):
        control("PATCH", "/faults", {"wait_period_ms": 60000})
        self.assertEqual({rule["ASSERTION"]["WaitPeriodMs"] for rule in self.listed()[1]}, {60000})
        update = arc().update_routing_control_state
        update(RoutingControlArn=EAST, RoutingControlState="Off")
        self.refused("ConflictException", update, RoutingControlArn=WEST, RoutingControlState="On")
        control("PATCH", "/faults", {"wait_period_ms": None})
        update(RoutingControlArn=WEST, RoutingControlState="On")

    def test_another_panel_is_unknown_and_the_api_can_fail(self):
        ask = arc_config().list_safety_rules
        self.refused("ResourceNotFoundException", ask, ControlPanelArn="arn:none")
        control("PATCH", "/faults", {"arc_config": {"mode": "error", "kind": "access-denied"}})
        self.refused("AccessDeniedException", ask, ControlPanelArn=SETTINGS["panel"])
        self.assertEqual(control("GET", "/calls")["calls"][-1]["endpoint"], "arc-config:us-west-2")

    def test_signatures_are_checked(self):
        ask = {"ControlPanelArn": SETTINGS["panel"]}
        self.refused("InvalidSignatureException", arc_config(secret="wrong").list_safety_rules, **ask)
        self.refused("InvalidSignatureException", arc_config("us-east-1").list_safety_rules, **ask)


class GlobalClusters(Contract):
    def describe(self, region):
        answer = rds(region).describe_global_clusters(GlobalClusterIdentifier="app-global")
        (cluster,) = answer["GlobalClusters"]
        return cluster

    def writer(self, region="us-east-1"):
        members = self.describe(region)["GlobalClusterMembers"]
        (writer,) = [member["DBClusterArn"] for member in members if member["IsWriter"]]
        return next(name for name, arn in CLUSTERS.items() if arn == writer)

    def test_the_global_cluster_has_a_writer_a_reader_and_an_endpoint(self):
        cluster = self.describe("us-east-1")
        self.assertEqual(cluster["Status"], "available")
        self.assertEqual(cluster["Engine"], "aurora-postgresql")
        self.assertEqual(cluster["Endpoint"], SETTINGS["writer_endpoint"])
        self.assertNotIn("FailoverState", cluster)
        writer, reader = CLUSTERS[self.writer()], None
        for member in cluster["GlobalClusterMembers"]:
            self.assertEqual(member["SynchronizationStatus"], "connected")
            if member["DBClusterArn"] == writer:
                (reader,) = member["Readers"]
        self.assertIn(reader, CLUSTERS.values())
        self.assertNotEqual(reader, writer)

    def test_a_region_describes_its_own_clusters_by_name_or_arn(self):
        for region, arn in CLUSTERS.items():
            for identifier in (arn, arn.split(":")[-1]):
                (cluster,) = rds(region).describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"]
                self.assertEqual(cluster["DBClusterArn"], arn)
                self.assertEqual(cluster["Status"], "available")
                self.assertEqual(cluster["Port"], 5432)
        other = rds("us-east-1").describe_db_clusters
        self.refused("DBClusterNotFoundFault", other, DBClusterIdentifier=CLUSTERS["us-west-2"])

    def test_a_switchover_shows_its_state_and_moves_the_writer(self):
        old = self.writer()
        new = next(region for region in CLUSTERS if region != old)
        control("PATCH", "/faults", {"switchover": {"hang": True}})
        ask = {"GlobalClusterIdentifier": "app-global", "TargetDbClusterIdentifier": CLUSTERS[new]}
        self.refused("InvalidGlobalClusterStateFault", rds(new).switchover_global_cluster, **ask)
        started = rds(old).switchover_global_cluster(**ask)["GlobalCluster"]
        self.assertEqual(started["Status"], "switching-over")
        state = self.describe(new)["FailoverState"]
        self.assertEqual(state["FromDbClusterArn"], CLUSTERS[old])
        self.assertEqual(state["ToDbClusterArn"], CLUSTERS[new])
        self.assertFalse(state["IsDataLossAllowed"])
        self.refused("InvalidGlobalClusterStateFault", rds(old).switchover_global_cluster, **ask)
        control("PATCH", "/faults", {"switchover": {"hang": False}})
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.describe(old)["Status"] != "available":
            self.assertLess(time.monotonic(), deadline, "the switchover did not end")
            time.sleep(0.05)
        self.assertEqual(self.writer(old), new)
        self.assertEqual(self.writer(new), new)
        self.refused("InvalidDBClusterStateFault", rds(new).switchover_global_cluster, **ask)

    def test_refusals_are_the_api_s_own(self):
        here = rds(self.writer())
        switch = here.switchover_global_cluster
        target = CLUSTERS["us-west-2"]
        self.refused("GlobalClusterNotFoundFault", here.describe_global_clusters, GlobalClusterIdentifier="none")
        self.refused(
            "GlobalClusterNotFoundFault", switch, GlobalClusterIdentifier="none", TargetDbClusterIdentifier=target
        )
        self.refused(
            "DBClusterNotFoundFault", switch, GlobalClusterIdentifier="app-global", TargetDbClusterIdentifier="none"
        )
        self.refused(
            "InvalidAction",
            here.failover_global_cluster,
            GlobalClusterIdentifier="app-global",
            TargetDbClusterIdentifier=target,
        )
        scripted = {"code": "InvalidGlobalClusterStateFault", "message": "as set"}
        control("PATCH", "/faults", {"switchover": {"refuse": scripted}})
        error = self.refused(
            "InvalidGlobalClusterStateFault",
            switch,
            GlobalClusterIdentifier="app-global",
            TargetDbClusterIdentifier=target,
        )
        self.assertEqual(error["Error"]["Message"], "as set")

    def test_signatures_are_checked(self):
        self.refused("SignatureDoesNotMatch", rds(secret="wrong").describe_global_clusters)
        self.refused("InvalidClientTokenId", rds(key="AKIDUNKNOWN").describe_global_clusters)
        self.refused("SignatureDoesNotMatch", rds("eu-west-1").describe_global_clusters)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
