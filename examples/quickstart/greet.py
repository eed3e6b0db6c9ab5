from streamworker import Handler, Record
from streamworker.serde import Text


class Greet(Handler[str]):
    topics = ("names",)
    value = Text()

    def handle(self, record: Record[str]) -> None:
        print(f"Hello, {record.value}!", flush=True)
