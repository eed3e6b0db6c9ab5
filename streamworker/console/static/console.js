// Keys, choosing, copying, light or dark. Everything else works without it, and nothing here makes code of text.
"use strict";

(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // Light or dark: what the system says, until somebody chooses.
  const theme = one("[data-theme-switch]");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `sw_theme=${dark ? "light" : "dark"}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
  });

  // Choosing letters.
  const boxes = all('#chosen input[name="id"]');
  const whole = one("[data-all]");
  if (whole) {
    const box = whole.querySelector("input");
    const buttons = all("#chosen button[name=action]");
    const count = () => {
      const chosen = boxes.filter((each) => each.checked).length;
      one("[data-count]").textContent = chosen ? `${chosen} chosen` : "none chosen";
      box.checked = chosen === boxes.length;
      box.indeterminate = chosen > 0 && chosen < boxes.length;
      buttons.forEach((button) => { button.disabled = chosen === 0; });
    };
    whole.hidden = false;
    one("[data-without-scripts]").hidden = true;
    box.addEventListener("change", () => { boxes.forEach((each) => { each.checked = box.checked; }); count(); });
    boxes.forEach((each) => each.addEventListener("change", count));
    addEventListener("pageshow", count);
    count();
  }

  // Copying.
  all("[data-copy]").forEach((button) => {
    if (!navigator.clipboard || !one(button.dataset.copy)) { return; }
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(one(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  });

  // A plan is run once, however often its button is pressed. Coming back to the page makes it good again.
  all("form.run").forEach((form) => {
    const button = form.querySelector("[data-run]");
    form.addEventListener("submit", () => { button.disabled = true; });
    addEventListener("pageshow", () => { button.disabled = false; });
  });

  // What a provider has sent back is sent on without a click.
  all("form[data-send]").forEach((form) => form.requestSubmit());

  // Menus close when something else is clicked, or by Escape.
  const close = (except) => all("details.menu[open]").forEach((menu) => { if (menu !== except) { menu.open = false; } });
  document.addEventListener("click", (event) => close(event.target.closest("details.menu")));

  // Keys.
  const rows = all("tr[data-row]");
  const links = all("a[data-row]");
  const places = rows.length ? rows : links;
  let at = -1;
  const move = (by) => {
    if (!places.length) { return; }
    if (at >= 0) { delete places[at].dataset.at; }
    at = Math.max(0, Math.min(places.length - 1, at + by));
    places[at].dataset.at = "";
    places[at].scrollIntoView({ block: "nearest" });
    const link = places[at].matches("a") ? places[at] : places[at].querySelector("a");
    if (link) { link.focus({ preventScroll: true }); }
  };
  const choose = () => {
    const box = at >= 0 && places[at].querySelector('input[name="id"]');
    if (box) { box.click(); }
  };
  const press = (key) => {
    const target = all("[data-key]").find((each) => each.dataset.key === key && !each.disabled);
    if (target) { target.click(); }
    return Boolean(target);
  };
  const pages = { o: "/", p: "/operations", g: "/groups", a: "/audit" };
  const dialog = one("#keys");
  const show = () => { close(); dialog.showModal(); };
  const opener = one("[data-keys]");
  if (opener) { opener.hidden = false; opener.addEventListener("click", show); }
  let going = false;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); }
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) { return; }
    if (event.target.closest("input:not([type=checkbox]), textarea, select")) { return; }
    const key = event.key;
    if (going) {
      going = false;
      if (pages[key] && one(".top nav")) { event.preventDefault(); location.assign(pages[key]); }
      return;
    }
    const filter = one("[data-filter]");
    if (key === "/" && filter) { filter.focus(); filter.select(); }
    else if (key === "?") { show(); }
    else if (key === "g") { going = true; }
    else if (key === "j" || key === "k") { move(key === "j" ? 1 : -1); }
    else if (key === "x") { choose(); }
    else if (!press(key)) { return; }
    event.preventDefault();
  });
})();
