"""`modelkeep principals certificate`: only registered principals get one."""


def test_who_is_not_registered_gets_no_certificate(desk):
    words = ("--out", desk.folder / "eve.pem", "--key-out", desk.folder / "eve.key")
    found = desk.refusal("principals", "certificate", "eve", *words, wanted=5)
    assert found == "principal.unknown"
    assert not (desk.folder / "eve.key").exists()
