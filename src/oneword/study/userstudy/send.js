"use strict";
function ended(text, wrong, shown) {  // which parts of the last page are to be seen
  $("#sent").textContent = text;
  $("#sent").classList.toggle("wrong", wrong);
  for (const name of ["completion", "by-hand", "end-back", "send", "download", "as-text"])
    $("#" + name).hidden = !shown.includes(name);
}
async function send() {
  ended("Your answers are being sent.", false, []);
  let told = { taken: false, again: true, text: "The server cannot be reached." };
  try {
    const answer = await fetch(location.pathname, { method: "POST", body: $("#answers").value,
      headers: { "Content-Type": "application/json" } });
    told = await answer.json();
  } catch {}  // no answer, or none of ours
  saved = !told.again;
  if (told.taken) ended(told.text, false, ["completion"]);
  else if (!told.again) ended(told.text, true, []);
  else
    ended(`${told.text} Send your answers again, or download them and hand the file to the people `
      + "who asked you.", true, ["end-back", "send", "download", "as-text"]);
}
addEventListener("finished", send);
$("#send").addEventListener("click", send);
