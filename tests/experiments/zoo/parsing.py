"""What tests ask of a page: its elements, which must nest, and the text of each."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Element:
    """An element, its attributes, and all within it."""

    def __init__(self, tag, attrs):
        self.tag, self.attrs, self.text, self.children = tag, attrs, "", []

    @property
    def words(self):
        return " ".join(self.text.split())

    def find(self, tag, **attrs):
        found = []
        for child in self.children:
            if child.tag == tag and all(child.attrs.get(k) == v for k, v in attrs.items()):
                found.append(child)
            found += child.find(tag, **attrs)
        return found

    @property
    def all(self):
        return [each for child in self.children for each in (child, *child.all)]


class Page(HTMLParser):
    """Makes a tree of elements."""

    def __init__(self, text):
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), attrs
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop().tag == tag

    def handle_data(self, data):
        for element in self._open:
            element.text += data


def parse(text):
    return Page(text).root
