"use strict";
// Everything can be read without this script; it chooses, unfolds and switches the theme.
document.documentElement.classList.remove("no-script");

const theme = document.getElementById("theme");
const themes = ["auto", "light", "dark"];
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
  if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
  theme.textContent = "Theme: " + next;
});

for (const choice of document.querySelectorAll("select[data-shows]")) {
  const parts = document.getElementById(choice.dataset.shows).children;
  const show = () => { for (const part of parts) part.hidden = !(choice.value === "" || part.dataset.key === choice.value); };
  choice.addEventListener("change", show);
  show();
}

for (const button of document.querySelectorAll("button[data-fold]")) {
  button.addEventListener("click", () => {
    const shown = [...document.getElementById(button.dataset.fold).children].filter((part) => !part.hidden);
    for (const part of shown) for (const step of part.querySelectorAll("details.step")) {
      step.open = button.value === "all" || (button.value === "best" && step.classList.contains("best"));
    }
  });
}

// Paper cannot be unfolded. The style does it, but for browsers that do not know the folded part by a name.
if (!CSS.supports("selector(::details-content)")) {
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
}

// A link to a step inside folded ones: unfold what it stands in.
const reveal = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target.scrollIntoView({ block: "center" });
  if (target.tagName === "DETAILS") target.querySelector("summary").focus({ preventScroll: true });
};
window.addEventListener("hashchange", reveal);
reveal();
