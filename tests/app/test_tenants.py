import pytest

from app.tenants import DEFAULT, inside, key_inside, key_outside, outside, prefix, tenant_of

IDS = ["a", "lab", "lab/a", "/a", "default/a", "a/", "lab\na", ""]


@pytest.mark.parametrize("tenant", [DEFAULT, "lab", "a"])
@pytest.mark.parametrize("session", IDS)
def test_name_leads_back_to_the_tenant_and_the_id(tenant, session):
    name = inside(tenant, session)
    assert (tenant_of(name), outside(name)) == (tenant, session)


def test_no_two_tenants_have_a_name_in_common():
    names = [inside(tenant, session) for tenant in (DEFAULT, "lab", "a", "lab2") for session in IDS]
    assert len(set(names)) == len(names)


def test_names_of_ids_without_a_slash_begin_with_the_prefix():
    assert (inside(DEFAULT, "a"), inside("lab", "a")) == (prefix(DEFAULT) + "a", prefix("lab") + "a")


def test_no_two_tenants_have_an_idempotency_key_in_common():
    keys = ["k", "lab/k", "default/k", "lab"]
    stored = [key_inside(tenant, key) for tenant in (DEFAULT, "lab") for key in keys]
    assert (len(set(stored)), [key_outside(key) for key in stored]) == (8, keys * 2)
