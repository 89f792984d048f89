// The live view of a dashboard: it shows the HTML that Python has made of each part, and tells Python what was pressed.
// Nothing else is made here: every text in the parts has been escaped.

const PARTS = ["head", "buttons", "main", "tools", "rows"];
const BUSY = 1500; // milliseconds without an answer, after which the kernel is taken to be busy
const LOST = 500; // milliseconds after which a connection that changed is tried
const ENDED = "The kernel of this view has ended, and its poll with it: run the cell again.";
const SCROLLS = ".fields, .wide"; // what may be scrolled sideways, and stays so when it is drawn anew
const PAUSE = 300; // milliseconds between two pieces of a file: a Jupyter server drops more than a megabyte a second

// Buttons stay the same elements as long as they do the same, so that one can be pressed while another changes with each request.
function renewed(part, html) {
    const [olds, news] = [part, new DOMParser().parseFromString(html, "text/html").body].map(one => [...one.children]);
    const same = olds.length === news.length && olds.every((old, place) => old.dataset.do === news[place].dataset.do);
    if (same) olds.forEach((old, place) => { old.disabled = news[place].disabled; });
    return same;
}

function render({ model, el }) {
    el.classList.add("enrichstatus", model.get("name"));
    const parts = Object.fromEntries(PARTS.map(name => [name, el.appendChild(document.createElement("div"))]));
    const note = el.appendChild(document.createElement("div"));
    note.className = "soft";
    note.setAttribute("aria-live", "polite");

    const key = one => JSON.stringify({ ...one.dataset });
    const draw = name => {
        if (held) return void late.add(name);
        const part = parts[name];
        const focused = part.contains(document.activeElement) ? key(document.activeElement) : null;
        const scrolled = [...part.querySelectorAll(SCROLLS)].map(one => one.scrollLeft);
        if (name === "buttons" && renewed(part, model.get(name))) return;
        part.innerHTML = model.get(name);
        part.querySelectorAll(SCROLLS).forEach((one, place) => { one.scrollLeft = scrolled[place] ?? 0; });
        if (focused) [...part.querySelectorAll("[data-do]")].find(one => key(one) === focused)?.focus();
        if (name === "tools") part.querySelector("input")?.addEventListener("input", search);
        if (name === "tools") fill();
    };

    // While a button is held down nothing is drawn: the press would be lost with the button.
    let held = false;
    const late = new Set();
    const hold = event => { held = event.button === 0; };
    const release = () => setTimeout(() => { // after the click
        held = false;
        const names = [...late];
        late.clear();
        names.forEach(draw);
    });
    el.addEventListener("pointerdown", hold);
    window.addEventListener("pointerup", release);
    window.addEventListener("pointercancel", release);

    // what was pressed, until Python has heard of it
    const waiting = new Map();
    let count = 0;
    const say = content => {
        const id = `${model.get("name")}-${Date.now()}-${++count}`;
        waiting.set(id, setTimeout(() => { note.textContent = "The kernel is busy; this is heard when its cell has ended."; }, BUSY));
        try {
            model.send({ ...content, id });
        } catch {
            heard(id);
            note.textContent = ENDED;
        }
        return id;
    };
    const heard = id => {
        clearTimeout(waiting.get(id));
        if (waiting.delete(id) && !waiting.size) note.textContent = "";
    };

    let typed;
    const search = event => {
        clearTimeout(typed);
        typed = setTimeout(() => say({ do: "search", text: event.target.value }), 150);
    };
    // the text that is searched for, which another view of the same dashboard may have set
    const fill = () => {
        const input = parts.tools.querySelector("input");
        if (input && input !== document.activeElement) input.value = model.get("search");
    };
    const press = event => {
        const button = event.target.closest("button[data-do]");
        if (button && !button.disabled) {
            PARTS.map(name => parts[name]).find(part => part.contains(button)).after(note);
            const id = say({ ...button.dataset });
            if (button.dataset.do === "file") files.set(id, []);
        }
    };
    el.addEventListener("click", press);

    // files come in pieces, each requested when the last is here
    const files = new Map();
    const receive = (content, buffers) => {
        heard(content.id);
        const pieces = files.get(content.id);
        if (!pieces) return;
        if (content.failed) {
            files.delete(content.id);
            note.textContent = content.failed;
        } else if (!content.of) {
            note.textContent = "Preparing the file …";
        }
        if (!content.of) return;
        pieces.push(buffers[0]);
        if (pieces.length < content.of) {
            note.textContent = `Downloading: ${Math.floor(100 * pieces.length / content.of)} %`;
            setTimeout(() => model.send({ do: "piece", of: content.id, at: pieces.length, id: content.id }), PAUSE);
            return;
        }
        files.delete(content.id);
        note.textContent = "";
        save(content, new Blob(pieces));
    };
    model.on("msg:custom", receive);

    // A kernel that has ended or was restarted draws nothing any more: what stands there would be believed until somebody presses.
    const check = () => setTimeout(() => {
        try {
            model.send({ do: "here" });
        } catch {
            const status = parts.head.querySelector("[role=status]");
            if (status && parts.buttons.firstChild) status.textContent = ENDED;
            parts.buttons.querySelectorAll("button").forEach(button => { button.disabled = true; });
        }
    }, LOST);
    model.on("comm_live_update", check);

    const save = async (content, blob) => {
        const whole = await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([whole], { type: content.kind }));
        link.download = content.file;
        el.append(link);
        link.click();
        link.remove();
        setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    };

    const changes = PARTS.map(name => [`change:${name}`, () => draw(name)]);
    changes.push(["change:search", fill]);
    for (const [name, then] of changes) model.on(name, then);
    PARTS.forEach(draw);
    try {
        model.send({ do: "show" }); // what changed while this page was loading may have been sent to nobody
    } catch {
        // a page without a kernel shows what was saved
    }
    return () => {
        for (const [name, then] of changes) model.off(name, then);
        model.off("msg:custom", receive);
        model.off("comm_live_update", check);
        window.removeEventListener("pointerup", release);
        window.removeEventListener("pointercancel", release);
        for (const timer of waiting.values()) clearTimeout(timer);
    };
}

export default { render };
