"""What happens when a folder is dropped onto the field for pictures.

Gradio's field takes dropped files, and of a folder none. This script takes the drop before the
field does, looks through the folder, and hands the pictures and zips in it to the field's own
input, as if they had been chosen there. Drops without a folder are left to the field.
"""

from __future__ import annotations


FIELD = "teach-files"
"""Id of the field."""
BUTTON = "teach-folder"
"""Id of the button that takes a whole folder; it says so where a folder holds no pictures."""

SCRIPT = f"""<script>
document.addEventListener("drop", event => {{
  const field = event.target.closest && event.target.closest("#{FIELD}");
  const items = field && event.dataTransfer ? [...event.dataTransfer.items] : [];
  // now: the items are gone once this function has returned
  const entries = items.map(item => item.webkitGetAsEntry && item.webkitGetAsEntry());
  if (!entries.some(entry => entry && entry.isDirectory)) return;
  event.preventDefault();
  event.stopPropagation();
  // one without files, so that the field no longer looks as if something hovered over it
  event.target.dispatchEvent(new DragEvent("drop", {{ bubbles: true }}));
  const children = reader => new Promise((done, failed) => reader.readEntries(done, failed));
  const filesOf = async entry => {{
    if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
    const reader = entry.createReader(), found = [];
    // a part of them at a time, none at the end
    for (let part; (part = await children(reader)).length;) found.push(...part);
    found.sort((one, other) => (one.name < other.name ? -1 : 1));
    return (await Promise.all(found.map(filesOf))).flat();
  }};
  Promise.all(entries.filter(Boolean).map(filesOf)).then(lists => {{
    const files = lists.flat(), own = field.querySelector("input[type=file]");
    const endings = own.accept.split(",").map(ending => ending.trim());
    const isTaken = ({{ name }}) => !name.startsWith(".") && !name.endsWith(".mask.png")
      && endings.some(ending => name.toLowerCase().endsWith(ending));
    const taken = files.filter(isTaken);
    const column = document.querySelector("#{BUTTON}").parentElement;
    const other = column.querySelector("input[data-testid$=-upload-button]");
    const target = taken.length ? own : other;
    const transfer = new DataTransfer();
    for (const file of taken.length ? taken : files.slice(0, 1)) transfer.items.add(file);
    target.files = transfer.files;
    target.dispatchEvent(new Event("change", {{ bubbles: true }}));
  }});
}}, true);
</script>"""
"""For the page's head."""
