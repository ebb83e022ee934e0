// The page's behaviour: unfold source and values, open prompts, ask for the PIN.
"use strict";

const { secret } = document.body.dataset;
let trusted = "trusted" in document.body.dataset;

function ask(parameters) {
  const query = new URLSearchParams({ __debugger__: "yes", s: secret, ...parameters });
  return fetch(`?${query}`, { credentials: "same-origin" });
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function unfold(root) {
  for (const folded of root.querySelectorAll(".extended")) {
    const more = make("span", { className: "more", textContent: "…" });
    more.onclick = () => { folded.classList.add("open"); more.remove(); };
    folded.before(more);
  }
}

function unlock() {
  if (trusted) return Promise.resolve(true);
  ask({ cmd: "printpin" });
  return new Promise((resolve) => {
    const pin = make("input", { size: 14, autocomplete: "off", autofocus: true });
    const problem = make("p", { className: "problem" });
    const form = make("form", {}, make("label", {}, "PIN: ", pin), " ", make("button", {}, "Unlock"));
    const text = "Enter the PIN that the server shows in its terminal.";
    const dialog = make("dialog", {}, make("h3", {}, "The prompt is locked"), make("p", {}, text), form, problem);
    form.onsubmit = async (event) => {
      event.preventDefault();
      problem.textContent = "…";
      const answer = await ask({ cmd: "pinauth", pin: pin.value }).then((r) => r.json()).catch(() => null);
      if (answer?.auth) {
        trusted = true;
        dialog.close();
      } else {
        problem.textContent = answer === null ? "The server does not answer."
          : answer.exhausted ? "Too many wrong PINs. Start the server again." : "Wrong PIN.";
        pin.select();
      }
    };
    dialog.onclose = () => { dialog.remove(); resolve(trusted); };
    document.body.append(dialog);
    dialog.showModal();
  });
}

function prompt(frame) {
  const output = make("div", { className: "output" });
  const input = make("input", { autocomplete: "off", spellcheck: false, ariaLabel: "Python" });
  const mark = make("code", { textContent: ">>>" });
  const form = make("form", {}, mark, input);
  const history = [];
  let position = 0;

  form.onsubmit = async (event) => {
    event.preventDefault();
    const command = input.value;
    input.value = "";
    if (command) history.push(command);
    position = history.length;
    if (command === "clear") { output.replaceChildren(); return; }
    const entry = make("pre", { className: "output" });
    try {
      const answer = await ask({ cmd: command, frm: frame.id.replace("frame-", "") });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      // The server escapes everything that is not its own markup.
      entry.innerHTML = await answer.text();
      mark.textContent = entry.textContent.trimEnd().endsWith(":") || entry.textContent.startsWith("... ") &&
        command ? "..." : ">>>";
      unfold(entry);
    } catch (error) {
      entry.textContent = `No answer: ${error.message}`;
    }
    output.append(entry);
    output.scrollTop = output.scrollHeight;
  };
  input.onkeydown = (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    position = Math.min(Math.max(position + step, 0), history.length);
    input.value = history[position] ?? "";
    event.preventDefault();
  };
  const console = make("div", { className: "console" }, output, form);
  frame.append(console);
  input.focus();
  return console;
}

function prepare(frame) {
  const title = frame.querySelector("h4");
  let console = null;
  const toggle = async () => {
    if (console) console.hidden = !console.hidden;
    else if (await unlock()) console = prompt(frame);
  };
  if (!title) { toggle(); return; }
  title.onclick = () => frame.classList.toggle("open");
  if (secret) {
    const button = make("button", { className: "open-console", textContent: "prompt" });
    button.onclick = (event) => { event.stopPropagation(); toggle(); };
    title.append(button);
  }
}

document.querySelectorAll(".frame").forEach(prepare);

// The developer's own code, nearest to the error, is what one looks for: its surroundings are shown at once.
Array.from(document.querySelectorAll(".frame[id]:not(.library):not(#frame-0)")).pop()?.classList.add("open");
